"""The Alembic revision that this version's schema is; a test holds it equal to the head of ``migrations/``."""

__all__ = ["HEAD"]

HEAD = "0002"
