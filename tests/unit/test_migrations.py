"""The numbers of the migrations."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from ich_node.database.migrate import known_schemas


def test_file_names_of_migrations_give_their_order():
    settings = Config()
    settings.set_main_option("script_location", "ich_node.database:migrations")
    from_alembic = [script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()]

    assert known_schemas() == from_alembic[::-1]
