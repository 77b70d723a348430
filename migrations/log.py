"""The log's file: events, and the streams and types that they name by number."""

from sqlite_utils import Database, Migrations

log = Migrations("log")


@log()
def events_by_position(db: Database) -> None:
    """Lay rows in the order of their positions, so interleaved appends all go to the end of the file.

    ``places`` says where a stream's events are. Filled a few thousand events at a time: kept up with each
    commit, it would cost a page per stream that is being written, which is most of a commit's bytes.
    ``placed`` holds the position up to which it is filled.
    """
    db.execute("""
        CREATE TABLE events (
            position INTEGER PRIMARY KEY,
            stream INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            type INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            data BLOB NOT NULL,
            chain BLOB
        ) STRICT
    """)
    db.execute("CREATE INDEX events_type ON events (type)")
    db.execute("""
        CREATE TABLE places (
            stream INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            position INTEGER NOT NULL,
            PRIMARY KEY (stream, seq)
        ) STRICT, WITHOUT ROWID
    """)
    db.execute("CREATE TABLE placed (position INTEGER NOT NULL) STRICT")
    db.execute("INSERT INTO placed VALUES (0)")
    db.execute("""
        CREATE TABLE streams (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            last_seq INTEGER NOT NULL,
            last_position INTEGER NOT NULL,
            chain BLOB NOT NULL
        ) STRICT
    """)
    db.execute("CREATE TABLE types (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT")


@log()
def types_by_position(db: Database) -> None:
    """Keep what finds events by their type as ``places`` is kept: filled later, up to ``placed``.

    The index that it takes the place of, and the ends of streams, cost each commit two pages beside the one
    that holds its events. A row of ``streams`` says where its stream ended when ``placed`` was written.
    """
    db.execute("""
        CREATE TABLE typed (
            type INTEGER NOT NULL,
            position INTEGER NOT NULL,
            PRIMARY KEY (type, position)
        ) STRICT, WITHOUT ROWID
    """)
    db.execute(
        "INSERT INTO typed SELECT type, position FROM events"
        " WHERE position <= (SELECT position FROM placed) ORDER BY type, position"
    )
    db.execute("DROP INDEX events_type")
