"""Time that passes at once for timers of the event loop."""

import asyncio


async def pass_time(seconds: float) -> None:
    """All timers go off that would within so many seconds, and what waits for them goes on."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]
    for _ in range(20):
        await asyncio.sleep(0)
