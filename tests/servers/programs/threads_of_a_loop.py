"""Publish in threads of a loop of asyncio, which goes on meanwhile."""

import asyncio
import sys

import numbered


async def main():
    numbers = range(int(sys.argv[1]))
    await asyncio.gather(*(asyncio.to_thread(numbered.publish, number) for number in numbers))


asyncio.run(main())
