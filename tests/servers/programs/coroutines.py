"""Publish in coroutines, which holds up the loop for as long as the relay takes."""

import asyncio
import sys

import numbered


async def publish(number):
    await asyncio.sleep(0)
    numbered.publish(number)


async def main():
    await asyncio.gather(*map(publish, range(int(sys.argv[1]))))


asyncio.run(main())
