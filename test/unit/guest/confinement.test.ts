import { strict as assert } from "node:assert";
import { existsSync, lstatSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { acceleratorGroups, mountTable } from "../../../src/guest/confinement.js";
import { confinedCommand, prepareRoot, type Confinement } from "../../../src/guest/index.js";

let directory = "";
before(() => {
  directory = mkdtempSync(join(tmpdir(), "ramet-confinement-"));
});
after(() => rmSync(directory, { recursive: true, force: true }));

const confinement: Confinement = {
  uid: 1_900_000_007,
  root: "/var/lib/ramet/guests/g/root",
  cgroups: ["/sys/fs/cgroup/memory/ramet/k/g", "/sys/fs/cgroup/pids/ramet/k/g"],
  readOnly: [],
};

function command(change: Partial<Parameters<typeof confinedCommand>[0]> = {}) {
  return confinedCommand({
    confinement,
    mounts: "/var/lib/ramet/guests/g/root.mounts",
    directory: "/dev/shm/ramet/g",
    sharesNetwork: false,
    groups: [],
    environment: { LD_PRELOAD: "/lib/x.so" },
    binary: "/usr/bin/qemu-system-x86_64",
    args: ["-S", "-name", "a b"],
    ...change,
  });
}

describe("the command that confines an emulator", () => {
  it("takes namespaces, then mounts, then gives up every right, then becomes the emulator", () => {
    const { binary, args, environment } = command();
    assert.equal(binary, "unshare");
    assert.deepEqual(Object.keys(environment), ["PATH"], "nothing is preloaded into the tools");
    const [script] = args.filter((arg) => arg.includes("pivot_root"));
    assert.ok(script !== undefined);
    assert.deepEqual(args.slice(0, args.indexOf(script)), [
      ...["--mount", "--ipc", "--net", "--propagation", "private", "--", "/bin/sh", "-euc"],
    ]);
    assert.deepEqual(args.slice(args.indexOf(script) + 1), [
      ...["ramet", "/var/lib/ramet/guests/g/root.mounts", confinement.root, "/dev/shm/ramet/g"],
      ...[...confinement.cgroups, "--"],
      ...["setpriv", "--reuid", "1900000007", "--regid", "1900000007", "--clear-groups"],
      ...["--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all", "--no-new-privs", "--"],
      ...["env", "--ignore-environment", "LD_PRELOAD=/lib/x.so"],
      ...["/usr/bin/qemu-system-x86_64", "-S", "-name", "a b"],
    ]);
  });

  it("leaves the host's network to a guest whose ports are forwarded, and only to it", () => {
    assert.ok(!command({ sharesNetwork: true }).args.includes("--net"));
    assert.ok(command({ sharesNetwork: false }).args.includes("--net"));
  });

  it("adds the groups an accelerator needs, and no others", () => {
    const { args } = command({ groups: [108] });
    assert.equal(args[args.indexOf("--groups") + 1], "108");
    assert.ok(!args.includes("--clear-groups"));
    assert.deepEqual(acceleratorGroups("tcg"), []);
  });
});

describe("a confined emulator's file system", () => {
  it("is written down so that no path can be taken for more than a path", () => {
    const table = mountTable("/s/a b", [{ source: "/m/tab\tand\\and#and\nline", options: "bind" }]);
    assert.equal(
      table,
      "/s/a\\040b /s/a\\040b none bind,ro,nosuid,nodev 0 0\n" +
        "/m/tab\\011and\\134and\\043and\\012line /s/a\\040b/m/tab\\011and\\134and\\043and\\012line none bind 0 0\n",
    );
  });

  it("has a place for each thing it shows, and nothing in it", () => {
    const kernel = join(directory, "kernel");
    writeFileSync(kernel, "content");
    const root = join(directory, "root");
    const mounts = prepareRoot({
      confinement: { ...confinement, root, readOnly: [kernel] },
      writable: [directory],
      accelerator: "tcg",
    });
    const table = readFileSync(mounts, "utf8");
    assert.equal(statSync(mounts).mode & 0o777, 0o600);
    assert.match(table, new RegExp(`^${root} ${root} none bind,ro,`), "the root itself first");
    assert.match(table, new RegExp(`^${kernel} ${root}${kernel} none bind,ro,nosuid,nodev `, "m"));
    assert.match(table, new RegExp(`^${directory} ${root}${directory} none bind,nosuid,nodev,noexec `, "m"));
    assert.doesNotMatch(table, /kvm/);
    assert.equal(statSync(join(root, kernel)).size, 0);
    assert.equal(statSync(root).mode & 0o777, 0o755, "others may pass");
    assert.ok(statSync(join(root, "usr")).isDirectory());
    const isLink = (path: string): boolean | undefined =>
      lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink();
    assert.equal(isLink(join(root, "/lib")), isLink("/lib"), "links of the host's root are links here");
    assert.ok(!existsSync(join(root, "etc/passwd")));
  });
});
