"""Run by Alembic: the connection is the one that schema.py has opened, and its transaction is schema.py's, too."""

from __future__ import annotations

from alembic import context

from carrier.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transactional_ddl=True,
)
context.run_migrations()
