/** The emulator's side of a control connection, for tests: it sends what a test tells it to. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const GREETING = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: "test" }, capabilities: ["oob"] },
};

export class FakeQmp {
  readonly path: string;
  readonly commands: { execute: string; arguments?: object; id: number }[] = [];
  readonly #directory: string;
  readonly #server: Server;
  readonly #answer: (command: string, id: number) => string | undefined;
  readonly #greeting: string;
  #socket: Socket | undefined;

  private constructor(options: FakeOptions) {
    this.#directory = mkdtempSync(join(tmpdir(), "ramet-qmp-"));
    this.path = join(this.#directory, "qmp.sock");
    this.#answer = options.answer ?? (() => undefined);
    this.#greeting = options.greeting ?? `${JSON.stringify(GREETING)}\r\n`;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  static async open(options: FakeOptions = {}): Promise<FakeQmp> {
    const fake = new FakeQmp(options);
    await new Promise<void>((resolve) => fake.#server.listen(fake.path, resolve));
    return fake;
  }

  send(text: string): void {
    this.#socket?.write(text);
  }

  /** Sends text so that the client is given one byte at a time. */
  async sendBytewise(text: string): Promise<void> {
    for (const byte of Buffer.from(text)) {
      this.#socket?.write(Buffer.of(byte));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  hangUp(): void {
    this.#socket?.destroy();
  }

  close(): void {
    this.#socket?.destroy();
    this.#server.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #accept(socket: Socket): void {
    this.#socket = socket;
    let rest = "";
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      rest += chunk.toString();
      for (let end = rest.indexOf("\n"); end !== -1; end = rest.indexOf("\n")) {
        const command = JSON.parse(rest.slice(0, end)) as FakeQmp["commands"][number];
        rest = rest.slice(end + 1);
        this.commands.push(command);
        const isHello = command.execute === "qmp_capabilities";
        const answer = isHello
          ? `{"return": {}, "id": ${command.id}}\r\n`
          : this.#answer(command.execute, command.id);
        if (answer !== undefined) socket.write(answer);
      }
    });
    socket.write(this.#greeting);
  }
}

interface FakeOptions {
  greeting?: string;
  answer?(command: string, id: number): string | undefined;
}
