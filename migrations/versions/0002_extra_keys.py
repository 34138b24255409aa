"""Keys by configuration, and their values."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "extra_key",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tag", sa.Integer, nullable=False),
        sa.Column("vr", sa.Text, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("up_to", sa.Integer, nullable=False),
    )
    op.create_table(
        "extra_value",
        sa.Column("key_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.Text),
        sa.Column("form", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_extra_value_form", "extra_value", ["key_id", "form"])


def downgrade() -> None:
    op.drop_table("extra_value")
    op.drop_table("extra_key")
