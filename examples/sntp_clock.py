"""A clock: the time that servers tell, every few seconds.

Try: python sntp_clock.py pool.ntp.org time.cloudflare.com
"""

import argparse
import asyncio

import asyncmg


async def main(servers, times, interval):
    for turn in range(times):
        if turn:
            await asyncio.sleep(interval)
        try:
            told = await asyncmg.sntp_time(*servers)
        except asyncmg.SntpFailed as error:
            for server, reason in error.failures.items():
                print(f"{server}: {reason}", flush=True)
            continue
        print(
            f"{told.datetime:%Y-%m-%d %H:%M:%S.%f}  offset {told.offset:+.6f} s  delay {told.delay:.6f} s  "
            f"stratum {told.stratum} ({told.reference})  {told.server}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers", nargs="+", metavar="HOST[:PORT]")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--interval", type=float, default=16.0, help="seconds; RFC 4330 section 10: not under 15")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.servers, arguments.times, arguments.interval))
