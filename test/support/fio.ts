/** fio in a disk guest: it writes past the guest's page cache and reads back what it wrote, in one pass after the other. */
import assert from "node:assert/strict";
import type { At } from "./database-guests.js";
import { inGuest } from "./disk-guest.js";
import { eventually } from "./hosts.js";

/** Has fio write and verify, until `stopFio`. */
export async function startFio({ host, port }: At, sizeMib = 4): Promise<void> {
  const pass = [
    `fio --name=verify --filename=/root/fio --size=${sizeMib}M --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bsrange=4k-64k --fsync=32`,
    "--randrepeat=0 --verify=crc32c --verify_fatal=1 --do_verify=1",
  ].join(" ");
  const passes = `while [ ! -e /run/fio.stop ]; do ${pass} >/run/fio.log 2>&1 || exit; echo pass >>/run/fio.passes; done`;
  await inGuest(
    host,
    port,
    `rm -f /run/fio.*; (setsid sh -c '${passes}'; echo $? >/run/fio.code) >/dev/null 2>&1 </dev/null &`,
  );
}

/** Lets fio end the pass it is in, by which it has read all that it wrote. */
export async function stopFio({ host, port, name }: At): Promise<void> {
  const script = "touch /run/fio.stop; while [ ! -s /run/fio.code ]; do sleep 0.1; done; cat /run/fio.log";
  const said = await inGuest(host, port, `${script}; cat /run/fio.passes; echo code $(cat /run/fio.code)`);
  assert.match(said, /\npass\ncode 0\n$/, `${name}:\n${said}`);
}

/** How many passes have ended well. */
export async function fioPasses({ host, port }: At): Promise<number> {
  const said = await inGuest(host, port, "wc -l </run/fio.passes 2>/dev/null || echo 0");
  return Number(said.trim());
}

/** Waits until fio has written and verified so many passes more, and has found nothing wrong. */
export async function fioGoesOn(at: At, passes = 1): Promise<void> {
  const before = await fioPasses(at);
  const isMore = async () => (await fioPasses(at)) >= before + passes;
  await eventually(`fio in ${at.name} has verified ${passes} passes more`, isMore, 120_000);
}
