"""The tables of the segments file: finished stretches of runs as ready frames.

The file is disposable, so a table is changed here and VERSION in service/segments/file.py is raised: a file
of another version is dropped and filled again from the log.
"""

from sqlite_utils import Database, Migrations

segments = Migrations("segments")


@segments()
def stretches(db: Database) -> None:
    """Create the table of segments, and the marks by which the log they were made from is recognised."""
    db.conn.execute("create table streams (id integer primary key, name text not null unique) strict")
    # The large columns last: what stands before them is read without them.
    db.conn.execute("""
        create table segments (
            id integer primary key,
            stream integer not null,
            first_seq integer not null,
            last_seq integer not null,
            crc integer not null, -- of all that a reader takes from here, see service/segments/segment.py
            ends blob not null,
            frames blob not null
        ) strict""")
    # Holds all that the index in memory is made from, so that it is not collected from a page per segment.
    db.conn.execute("create unique index places on segments (stream, first_seq, last_seq)")
    # Two rows: the newest event sealed, and the seal of a run up to which all runs have been looked at.
    db.conn.execute("""
        create table marks (
            name text primary key,
            position integer not null,
            stream text not null,
            seq integer not null,
            crc integer not null
        ) strict, without rowid""")
