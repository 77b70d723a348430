"""The schemas of our databases, as steps that are never edited once released."""
