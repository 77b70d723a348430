"""What releases have written, kept for ever: each directory is named for one and is never changed again.

``log.ndjson`` is all it wrote, ``states.json`` what its runs came to, ``tailrace.db.xz`` the file itself.
"""
