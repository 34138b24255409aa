"""Alembic's environment: migrations run on the connection that the caller put into the configuration.

``pacslite.archive.index.upgrade`` does so at start and for ``pacslite db upgrade``. By hand, to write a new revision:
``alembic -c migrations/alembic.ini -x url=sqlite:///index.sqlite revision --autogenerate -m "..."``.
"""

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.schema import SchemaItem

from pacslite.archive.index.schema import metadata


def is_ours(item: SchemaItem, name: str | None, kind: str, reflected: bool, _: SchemaItem | None) -> bool:
    """The tables behind SQLite's full text search are no concern of Alembic's."""
    del item, reflected
    return not (kind == "table" and (name or "").startswith("patient_name_trigram"))


def run(connection: Connection) -> None:
    """Run what is due, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=is_ours,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters tables by copying them
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = create_engine(context.get_x_argument(as_dictionary=True)["url"])
    with engine.begin() as own:
        run(own)
