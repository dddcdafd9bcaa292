import assert from "node:assert/strict";
import { InvalidArgumentError } from "commander";
import { CodedError } from "../../../src/base/index.js";
import { forwardText, METHODS, type Handlers, type MethodName } from "../../../src/control/index.js";
import { parseAgentAddress } from "../../../src/cli/agent-address.js";
import { CliError } from "../../../src/cli/errors.js";
import { EXIT } from "../../../src/cli/exit-codes.js";
import { collect, memoryMiB, sizeBytes, wholeNumber } from "../../../src/cli/options.js";
import { LaneError, parseAddress } from "../../../src/lane/index.js";
import { FakeSetting } from "../../unit/cli/support.js";
import { orRefusal, type Target } from "../engine/target.js";

const allocationBytes = (inputBytes: number) => 8 * 1024 * 1024 + inputBytes * 256;

/** Numbers, sizes, addresses and forwards as people write them. */
export const cliValues: Target = {
  name: "cli-values",
  covers: ["src/cli/options.ts", "src/cli/agent-address.ts", "src/lane/address.ts"],
  format: "text",
  maxInputBytes: 512,
  allocationBytes,
  *seeds() {
    const texts = [
      "512",
      "2G",
      "1.5GiB",
      "1024K",
      "0",
      "a,b",
      "127.0.0.1:7070",
      "ws://[::1]:80/",
      "unix:/run/x.sock",
    ];
    const forwards = ["8080:80", "0.0.0.0:8080:80/udp", "1.2.3.4:1:65535/tcp", "/run/ramet/rametd.sock"];
    for (const text of [...texts, ...forwards]) yield Buffer.from(text);
  },
  run(input) {
    const text = input.toString("utf8");
    const outcomes = [
      orRefusal(InvalidArgumentError, () => {
        const mib = memoryMiB(text);
        assert.ok(Number.isSafeInteger(mib) && mib > 0);
        return "memory";
      }),
      orRefusal(InvalidArgumentError, () => {
        const bytes = sizeBytes(text);
        assert.ok(Number.isSafeInteger(bytes) && bytes > 0);
        return "size";
      }),
      orRefusal(InvalidArgumentError, () => {
        const count = wholeNumber(1, 64)(text);
        assert.ok(Number.isInteger(count) && count >= 1 && count <= 64);
        return "number";
      }),
      orRefusal(InvalidArgumentError, () => (collect(text, []).length > 0 ? "list" : "")),
      orRefusal(CliError, () => {
        const { url, shown } = parseAgentAddress(text);
        // What the command line takes for an address, the lane room can dial or refuses as an address.
        return `${shown} ${orRefusal(LaneError, () => ("path" in parseAddress(url) ? "path" : "host"))}`;
      }),
      orRefusal(LaneError, () => {
        const address = parseAddress(text);
        if ("port" in address) assert.ok(address.port >= 1 && address.port <= 65535);
        return "lane";
      }),
      forwardText.safeParse(text).success ? "forward" : "",
    ];
    return outcomes.map((outcome) => outcome.replace("commander.invalidArgument", "-")).join(" ");
  },
};

class Declined extends CodedError<"refused"> {}

const decline = () => Promise.reject(new Declined("refused", "this is only a test"));
const HANDLERS = Object.fromEntries(
  (Object.keys(METHODS) as MethodName[])
    .filter((name) => METHODS[name].role === "client")
    .map((name) => [name, decline]),
) as unknown as Handlers<"client">;

const EXIT_CODES: readonly number[] = Object.values(EXIT);

/** Whole command lines: arguments separated by line ends, with an agent that declines everything. */
export const cliArguments: Target = {
  name: "cli-arguments",
  covers: ["src/cli/"],
  format: "text",
  maxInputBytes: 1024,
  allocationBytes,
  *seeds() {
    const commands = [
      "run web --kernel /k --initrd /i --memory 1G --cpus 2 --append quiet --network user --forward 8080:80",
      "fork web --to b,c --count 3 --name x --verify --paused --sweep held --compression lz4 --rate-limit 1M --no-wait",
      "migrate web b --verify",
      "list --json",
      "show web",
      "stop web --timeout 5",
      "kill web",
      "remove web",
      "logs web --lines 5 --follow --console",
      "console web",
      "transfers --all",
      "watch 7",
      "cancel 7 --role child",
      "sweep 7 held",
      "steer 7 --rate-limit none --priority low --sweep on",
      "resume 7",
      "peers",
      "ping b --count 3",
      "warm web --to b --count 2",
      "completion bash",
      "version",
      "help fork",
      "--agent ws://127.0.0.1:7070 --key-file /does/not/exist list",
      "--agent a:1 --tls /does/not/exist --certificate /c --key /k --authority /a --revoked /r list",
      "pki issue a --role peer --address b --days 5 --renew --directory /does/not/exist",
      "--help",
    ];
    for (const command of commands) yield Buffer.from(command.replaceAll(" ", "\n"));
  },
  async run(input) {
    const setting = new FakeSetting(HANDLERS);
    const argv = input.toString("utf8").split("\n");
    // Errors are then written with their code, which is how a mistake of ours can be told.
    const running = setting.run(...argv, "--json");
    // Whatever still waits for something has declined all it can be given, and is ended as by Ctrl-C.
    for (let turn = 0; turn < 4; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    setting.interrupt();
    const code = await running;
    assert.ok(EXIT_CODES.includes(code), `exit code ${code}`);
    const found = /"code":"([^"]*)"/.exec(setting.stderr.text)?.[1] ?? "";
    assert.notEqual(found, "internal", setting.stderr.text);
    return `${code} ${found} ${setting.dialled.length}`;
  },
};
