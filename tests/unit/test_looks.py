"""When a loop looks at the database."""

from pathlib import Path

from sqlalchemy import text

from ich_node.database import Looks, open_database, prepare_database


def test_a_look_is_worth_it_where_somebody_wrote_or_time_has_passed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ich-node.sqlite'}"
    database, other = open_database(url), open_database(url)
    prepare_database(database, tmp_path)
    seldom, always = Looks(database, 3600.0), Looks(database, 0.0)
    try:
        assert seldom.worth(), "the first"
        assert not seldom.worth()
        assert not seldom.worth()
        for writer in (other, database):
            with writer.writing() as connection:
                connection.execute(text("UPDATE study SET old = old"))
                connection.execute(text("CREATE TABLE IF NOT EXISTS probe (n INTEGER)"))
                connection.execute(text("INSERT INTO probe VALUES (1)"))
            assert seldom.worth(), "somebody wrote"
            assert not seldom.worth()
        assert always.worth()
        assert always.worth()
    finally:
        seldom.close()
        always.close()
        database.close()
        other.close()


def test_where_the_database_cannot_be_asked_a_look_is_worth_it(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'gone' / 'ich-node.sqlite'}")
    looks = Looks(database, 3600.0)
    assert looks.worth()
    assert looks.worth()
    looks.close()
    database.close()
