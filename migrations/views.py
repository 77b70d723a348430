"""The tables of the views file: what the lists and details of the API are read from.

The file is disposable, so a table is changed here and VERSION in service/projection/views.py is raised:
a file of another version is dropped and filled again from the log.
"""

from sqlite_utils import Database, Migrations

views = Migrations("views")


@views()
def runs(db: Database) -> None:
    """Create the tables of runs; values that are JSON in the events stay JSON bytes here."""
    # The indexes of runs end in the rowid (position): with it they give "newest first" under every filter.
    db.conn.execute("""
        create table runs (
            position integer primary key, -- of run_start in the log
            run_id text not null unique,
            workflow_id text not null,
            workflow_version integer not null,
            status text not null,
            start_time text not null,
            end_time text,
            duration integer, -- ms
            last_seq integer,
            error blob,
            hash text,
            owner text -- who started it
        )""")
    for columns in ("start_time", "status, start_time", "workflow_id, start_time",
                    "workflow_id, status, start_time", "owner, start_time"):  # fmt: skip
        name = "runs_by_" + columns.replace(", ", "_")
        db.conn.execute(f"create index {name} on runs ({columns})")
    db.conn.execute("""
        create table steps (
            run_id text not null,
            step_id text not null,
            place integer, -- in the definition
            name text not null,
            status text not null,
            attempt integer not null,
            start_time text,
            end_time text,
            duration integer, -- ms
            error blob,
            output blob,
            primary key (run_id, step_id)
        ) without rowid""")
    db.conn.execute("""
        create table variables (
            run_id text not null,
            name text not null,
            value blob not null,
            step_id text, -- who set it; null: given at the start
            seq integer not null,
            primary key (run_id, name)
        ) without rowid""")


@views()
def workflows(db: Database) -> None:
    """Create the table of definitions, and the place in the log that all tables have come to."""
    db.conn.execute("""
        create table workflows (
            workflow_id text primary key,
            version integer not null,
            name text,
            description text,
            created_at text not null,
            updated_at text not null,
            deleted integer not null
        ) without rowid""")
    # One row: the last event applied, so that a log which does not hold that very event is noticed.
    db.conn.execute("""
        create table checkpoint (
            id integer primary key check (id = 1),
            position integer not null,
            stream text not null,
            seq integer not null,
            crc integer not null
        )""")
