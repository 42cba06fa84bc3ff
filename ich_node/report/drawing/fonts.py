"""Which font files are on the machine."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDERS: Final = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))

_LATIN: Final = ("DejaVuSans.ttf",)
_LATIN_BOLD: Final = ("DejaVuSans-Bold.ttf",)
_OTHERS: Final = (
    "DroidSansFallbackFull.ttf",  # Chinese characters and kana; of Debian's, next to no Hangul
    "NanumGothic.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "NotoSansThai-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
)


@dataclass(frozen=True, slots=True)
class FontFiles:
    """Font files, the one to try first before the others."""

    regular: tuple[Path, ...] = ()
    bold: tuple[Path, ...] = ()


def installed_fonts(folders: Sequence[Path] = FOLDERS) -> FontFiles:
    """Find the fonts that pages are written in; those that are absent are left out."""
    wanted = {*_LATIN, *_LATIN_BOLD, *_OTHERS}
    found = {path.name: path for path in _files(folders) if path.name in wanted}
    others = tuple(found[name] for name in _OTHERS if name in found)
    regular = tuple(found[name] for name in _LATIN if name in found)
    bold = tuple(found[name] for name in _LATIN_BOLD if name in found) or regular
    return FontFiles(regular + others, bold + others)


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        for root, directories, names in os.walk(folder):
            directories.sort()
            yield from (Path(root, name) for name in sorted(names))
