import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";

/** QEMU's block/file-posix.c: a lock on this byte says that nobody else may write the image (RAW_LOCK_SHARED_BASE 200, BLK_PERM_WRITE 1 << 1). */
const NO_OTHER_WRITER_BYTE = 201;

/** Takes a read lock (fcntl(2), F_RDLCK is 0) and holds it until its input ends. */
const PROGRAM = `use Fcntl; open(my $f, "+<", $ARGV[0]) or die $!;
fcntl($f, F_SETLK, pack("s s x4 q q i x4", 0, 0, $ARGV[1], 1, 0)) or die $!;
$| = 1; print "locked"; <STDIN>;`;

/** As another emulator that has a disk's file to itself: one that has it already goes on, and nobody can take it to write. Resolves when that holds; `end` ends it. */
export async function lockFile(path: string): Promise<{ end(): Promise<void> }> {
  const holder = spawn("perl", ["-e", PROGRAM, path, String(NO_OTHER_WRITER_BYTE)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(holder, "exit");
  const [said] = (await Promise.race([once(holder.stdout, "data"), ended])) as [unknown];
  assert.equal(String(said), "locked", `${path} is locked`);
  return {
    end: async () => {
      holder.stdin.end();
      await ended;
    },
  };
}
