"""How stored bytes travel: framing, what is on its way to a client, uvicorn's protocols with our limits."""
