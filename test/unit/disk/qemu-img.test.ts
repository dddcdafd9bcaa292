import assert from "node:assert/strict";
import { access, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codeOf, realClock, silentLog, sleep } from "../../../src/base/index.js";
import { passedPath, QemuImg, type QemuImgRun } from "../../../src/disk/index.js";
import { withDirectory } from "../../support/images.js";

/** A program that does what a test says, in the place of qemu-img. */
async function stand(
  script: string,
  body: (tool: QemuImg, directory: string) => Promise<void>,
  stallMs = 400,
): Promise<void> {
  await withDirectory(async (directory) => {
    const program = join(directory, "tool");
    await writeFile(program, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    await body(new QemuImg({ clock: realClock, log: silentLog, program, stallMs }), directory);
  });
}

async function failureOf(tool: QemuImg, run: Partial<QemuImgRun> = {}): Promise<Error> {
  const ended = await tool.run({ args: ["convert"], ...run }).then(
    () => undefined,
    (error: Error) => error,
  );
  assert.ok(ended, "the run failed");
  return ended;
}

test("progress is told as it comes, also when it comes in pieces", async () => {
  const script = `printf '    (1.00/100%%)\\r    (2.5'; sleep 0.1; printf '0/100%%)\\r'; sleep 0.1; printf '    (100.00/100%%)\\r\\n'`;
  await stand(script, async (tool) => {
    const percents: number[] = [];
    await tool.run({ args: ["convert", "-p"], onPercent: (percent) => percents.push(percent) });
    assert.deepEqual(percents, [1, 2.5, 100]);
  });
});

test("a failure has the program's own words; a full disk is told apart", async () => {
  await stand("echo 'qemu-img: it is broken' >&2; echo 'in two places' >&2; exit 1", async (tool) => {
    const error = await failureOf(tool);
    assert.equal(codeOf(error), "tool-failed");
    assert.match(error.message, /tool convert: qemu-img: it is broken; in two places$/);
  });
  await stand("echo 'error while writing: No space left on device' >&2; exit 1", async (tool) =>
    assert.equal(codeOf(await failureOf(tool)), "no-room"),
  );
  await stand("exit 3", async (tool) => {
    assert.match((await failureOf(tool)).message, /it ended with code 3/);
    assert.equal((await tool.run({ args: ["check"], accept: [3] })).code, 3);
  });
  await stand("kill -SEGV $$", async (tool) =>
    assert.match((await failureOf(tool)).message, /was ended by SIGSEGV/),
  );
});

test("a program that does not end, or does not get on, is killed; one that gets on slowly is not", async () => {
  await stand("exec sleep 60", async (tool) => {
    assert.equal(codeOf(await failureOf(tool)), "timeout");
    const error = await failureOf(tool, { onPercent: () => {} });
    assert.match(error.message, /did not get on for 0.4 seconds/);
  });
  const slow = 'for i in 1 2 3 4 5; do printf "(${i}0.00/100%%)\\r"; sleep 0.5; done';
  const body = async (tool: QemuImg): Promise<void> => {
    const percents: number[] = [];
    await tool.run({ args: ["convert"], onPercent: (percent) => percents.push(percent) });
    assert.equal(percents.at(-1), 50);
  };
  await stand(slow, body, 2000);
});

test("a run is cancelled by its signal, before and while it runs", async () => {
  await stand('echo "$$" > "$(dirname "$0")/pid"; exec sleep 60', async (tool, directory) => {
    const cancelling = new AbortController();
    const failing = failureOf(tool, { signal: cancelling.signal });
    const pid = join(directory, "pid");
    while (
      !(await access(pid).then(
        () => true,
        () => false,
      ))
    )
      await sleep(realClock, 5);
    cancelling.abort();
    assert.equal(codeOf(await failing), "cancelled");
    assert.equal(codeOf(await failureOf(tool, { signal: cancelling.signal })), "cancelled");
  });
});

test("nothing of the agent's environment reaches the program, and its errors are in English", async () => {
  await stand("env", async (tool) => {
    const { output } = await tool.run({ args: [] });
    const names = output.split("\n").map((line) => line.split("=")[0]);
    assert.deepEqual(
      names.filter((name) => !["PATH", "LC_ALL", "PWD", "SHLVL", "_", ""].includes(name ?? "")),
      [],
    );
    assert.match(output, /LC_ALL=C$/m);
  });
});

test("the program runs as the user it is given, behind guests, and goes first where memory is short", async () => {
  const uid = process.geteuid?.() === 0 ? 65_534 : (process.geteuid?.() ?? 0);
  // It is told of its priority by the agent, right after its start.
  const script = 'sleep 0.3; id -u; id -G; cut -d " " -f 19 /proc/self/stat; cat /proc/self/oom_score_adj';
  const tool = new QemuImg({ clock: realClock, log: silentLog, program: "/bin/sh" });
  const { output } = await tool.run({ args: ["-c", script], uid });
  const [user, groups, niceness, score] = output.split("\n");
  assert.deepEqual([user, niceness, score], [String(uid), "10", "500"]);
  if (process.geteuid?.() === 0) assert.equal(groups, String(uid), "none of the agent's groups");
});

test("open files are reached by what they are passed as", async () => {
  await stand('cat "$1"', async (tool, directory) => {
    await writeFile(join(directory, "secret"), "words");
    const file = await open(join(directory, "secret"), "r");
    try {
      const { output } = await tool.run({ args: [passedPath(0)], files: [file.fd] });
      assert.equal(output, "words");
    } finally {
      await file.close();
    }
  });
});

test("a program that is not installed is named, with its package; one that writes without end is killed", async () => {
  const tool = new QemuImg({ clock: realClock, log: silentLog, program: "/nowhere/qemu-img" });
  const error = await failureOf(tool);
  assert.equal(codeOf(error), "not-installed");
  assert.match(error.message, /apt-get install qemu-utils/);
  await stand("exec cat /dev/zero", async (endless) =>
    assert.match((await failureOf(endless)).message, /writes more than an answer is long/),
  );
});
