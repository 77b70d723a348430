"""The tables of the segments file: where finished stretches of runs lie as ready frames.

The file is disposable, so a table is changed here and VERSION in service/segments/file.py is raised: a file
of another version is dropped and filled again from the log.
"""

from sqlite_utils import Database, Migrations

segments = Migrations("segments")


@segments()
def stretches(db: Database) -> None:
    """Create the table of segments, and what tells which frames and which log they belong to."""
    db.conn.execute("create table streams (id integer primary key, name text not null unique) strict")
    # All that the index in memory is made from, in one tree and in its order.
    db.conn.execute("""
        create table segments (
            stream integer not null,
            first_seq integer not null,
            last_seq integer not null,
            at integer not null, -- the byte of the frames file where it begins
            size integer not null,
            crc integer not null, -- of all that a reader takes from there, see service/segments/segment.py
            primary key (stream, first_seq)
        ) strict, without rowid""")
    db.conn.execute("create table frames (name blob not null) strict")
    # Two rows: the newest event sealed, and the seal of a run up to which all runs have been looked at.
    db.conn.execute("""
        create table marks (
            name text primary key,
            position integer not null,
            stream text not null,
            seq integer not null,
            crc integer not null
        ) strict, without rowid""")
