"""An ASGI application that does something at its end."""

_APP = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        %s
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})
"""


def ends_with(*statements: str) -> str:
    """Return a program that answers "served", and at its end does what `statements` say."""
    return _APP % "\n        ".join(statements)
