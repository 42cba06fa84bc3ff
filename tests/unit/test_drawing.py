"""Text comes out whole, in a font that has its characters, or visibly replaced or shortened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ich_node.report.drawing import Canvas, FontFiles, Lettering, Style, installed_fonts, resized

BARE = Lettering(FontFiles())
HERE = Lettering(installed_fonts())
STYLE = Style(20, (255, 255, 255))
TEXTS = {
    "latin": "Müller-Lüdenscheidt, Jörg  Łukasiewicz, Žofie",
    "greek": "Παπαδόπουλος, Γεώργιος",
    "cyrillic": "Иванов, Пётр",
    "japanese": "Yamada, Tarou  山田 太郎 やまだ",
    "korean": "Kim, Minjun  김 민준",
    "arabic": "Al-Masri, Mohammed  محمد المصري",
    "hebrew": "כהן, דוד",
    "thai": "สมชาย ใจดี",
    "odd": "a\tb\nc\x00\x1b[31m \u202e \ufffe \U0001f9e0 \ud800 e\u0301",
    "empty": "",
}


def drawn(text: str, lettering: Lettering, **changes: object) -> np.ndarray:
    page = Canvas(900, 40, (0, 0, 0), lettering)
    page.text(10, 4, text, STYLE, **changes)
    return page.pixels()[..., 0]


def need_font(name: str) -> None:
    if not any(path.name == name for path in installed_fonts().regular):
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("lettering", [BARE, HERE], ids=["bundled font", "fonts of this machine"])
@pytest.mark.parametrize("name", TEXTS)
def test_any_text_is_drawn_and_nothing_is_cut_off(lettering: Lettering, name: str) -> None:
    picture = drawn(TEXTS[name], lettering)
    assert picture.any() == bool(TEXTS[name])
    assert not picture[:2].any()
    assert not picture[-2:].any()
    assert not picture[:, -8:].any()


def test_characters_without_glyph_are_visibly_replaced() -> None:
    assert "".join(run.text for run in BARE.runs("Kim 김", STYLE)) == "Kim ?"
    assert drawn("김", BARE).any()


def test_a_text_of_which_no_character_can_be_drawn_is_told() -> None:
    assert not BARE.readable("김민준")
    assert BARE.readable("Kim 김민준")
    assert BARE.readable("")
    assert BARE.readable("–")


def test_chinese_characters_and_latin_letters_come_from_fonts_that_have_them() -> None:
    need_font("DejaVuSans.ttf")
    need_font("DroidSansFallbackFull.ttf")
    runs = HERE.runs("Yamada 山田 Łuk", STYLE)
    assert [run.text for run in runs] == ["Yamada ", "山田 ", "Łuk"]
    assert [run.font.getname()[0] for run in runs] == ["DejaVu Sans", "Droid Sans Fallback", "DejaVu Sans"]
    assert not np.array_equal(drawn("山", HERE), drawn("田", HERE))


def test_a_mark_that_no_font_has_is_replaced_like_any_other_character() -> None:
    need_font("DejaVuSans.ttf")
    assert "".join(run.text for run in HERE.runs("\u0e35", STYLE)) in ("□", "\u0e35")
    assert [run.text for run in HERE.runs("e\u0323", STYLE)] == ["ẹ"]


def test_what_is_written_from_right_to_left_is_turned_where_no_library_does_it() -> None:
    need_font("DejaVuSans.ttf")
    unshaped = Lettering(installed_fonts())
    unshaped._shapes = False
    assert "".join(run.text for run in unshaped.runs("Cohen כהן דוד 12", STYLE)) == "Cohen דוד ןהכ 12"


@pytest.mark.parametrize("lettering", [BARE, HERE], ids=["bundled font", "fonts of this machine"])
@pytest.mark.parametrize("text", [*TEXTS.values(), "X" * 64, "word " * 40, "山田太郎" * 30])
@pytest.mark.parametrize("width", [60, 300])
def test_shortened_and_broken_lines_are_never_wider_than_their_room(
    lettering: Lettering, text: str, width: int
) -> None:
    assert lettering.width(lettering.fitted(text, STYLE, width), STYLE) <= width
    lines = lettering.wrapped(text, STYLE, width, 3)
    assert len(lines) <= 3
    assert all(lettering.width(line, STYLE) <= width for line in lines)


def test_what_is_left_out_is_marked_by_an_ellipsis() -> None:
    assert HERE.fitted("word " * 40, STYLE, 200).endswith("…")
    assert HERE.wrapped("word " * 40, STYLE, 200, 2)[-1].endswith("…")
    assert HERE.wrapped("two words", STYLE, 200, 2) == ["two words"]
    assert HERE.fitted("fits", STYLE, 200) == "fits"


def test_broken_lines_hold_the_whole_text() -> None:
    text = "Slices are missing along the slice normal at -12.0 to 3.0 mm, found below 20.0 %."
    lines = HERE.wrapped(text, STYLE, 240, 9)
    assert len(lines) > 2
    assert " ".join(lines) == text
    assert not any(line.startswith("%") for line in lines)
    assert "".join(HERE.wrapped("山田太郎" * 30, STYLE, 240, 99)) == "山田太郎" * 30


def test_letters_shrink_until_the_text_fits_but_not_below_the_smallest() -> None:
    small = HERE.shrunk("X" * 30, STYLE, 300, 8)
    assert 8 < small.size_px < 20
    assert HERE.width("X" * 30, small) <= 300
    assert HERE.shrunk("X" * 300, STYLE, 300, 8).size_px == 8


@pytest.mark.parametrize("align", ["left", "centre", "right"])
def test_text_is_held_to_the_sheet_whatever_is_asked_for(align: str) -> None:
    page = Canvas(200, 40, (0, 0, 0), HERE)
    page.text(120, 4, "a line that is much too long for its sheet", STYLE, align=align)
    picture = page.pixels()[..., 0]
    assert picture.any()
    assert not picture[:, :2].any()
    assert not picture[:, -2:].any() or align == "left"
    assert page.texts[0].endswith("…")


def test_fonts_are_found_below_their_folders_and_absent_ones_left_out(tmp_path: Path) -> None:
    assert installed_fonts([tmp_path, tmp_path / "absent"]) == FontFiles()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "DejaVuSans.ttf").touch()
    (tmp_path / "a" / "Other.ttf").touch()
    found = installed_fonts([tmp_path])
    assert [path.name for path in found.regular] == ["DejaVuSans.ttf"]
    assert found.bold == found.regular


def test_values_are_brought_to_another_grid_where_they_were() -> None:
    values = np.zeros((40, 20), np.float32)
    values[30:36, 5:8] = 1.0
    larger = resized(values, 80, 60)
    assert larger.shape == (80, 60)
    assert np.unravel_index(larger.argmax(), larger.shape) == pytest.approx((66, 19), abs=6)
    assert resized(values, 10, 5).mean() == pytest.approx(values.mean(), abs=0.01)
