import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { describe, test } from "node:test";
import { requireFreePort } from "../../../src/agent/network/ports.js";
import { newTapName, requireBridge } from "../../../src/agent/network/tap.js";

describe("ports to forward", () => {
  test("a taken TCP or UDP port is refused by name, a free one is left free", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const hostPort = (server.address() as AddressInfo).port;
    const port = { host: "127.0.0.1", hostPort, protocol: "tcp" } as const;
    await assert.rejects(requireFreePort(port, { confined: true }), {
      code: "port-taken",
      message: new RegExp(`tcp port ${hostPort} on 127.0.0.1 is in use`),
    });
    server.close();
    await once(server, "close");
    await requireFreePort(port, { confined: true });
    await requireFreePort(port, { confined: true });

    const socket = createSocket("udp4").bind(0, "127.0.0.1");
    await once(socket, "listening");
    const udp = { host: "127.0.0.1", hostPort: socket.address().port, protocol: "udp" } as const;
    await assert.rejects(requireFreePort(udp, { confined: true }), { code: "port-taken" });
    socket.close();
    await assert.rejects(requireFreePort({ ...port, host: "203.0.113.1" }, { confined: true }), {
      message: /cannot be used \(EADDRNOTAVAIL\)/,
    });
  });
});

test("a port for root only is refused for emulators who are not, with the setting that decides", async () => {
  const least = Number(readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8"));
  const port = { host: "127.0.0.1", hostPort: least - 1, protocol: "tcp" } as const;
  // A machine may let everybody listen everywhere.
  if (least <= 1) return;
  await assert.rejects(requireFreePort(port, { confined: true }), {
    code: "port-taken",
    message: new RegExp(
      `for root only.*from ${least} on, or run: sysctl net.ipv4.ip_unprivileged_port_start=${least - 1}`,
    ),
  });
});

describe("tap devices", () => {
  test("have names that fit and are told apart", () => {
    assert.match(newTapName(), /^ramet[0-9a-f]{10}$/);
    assert.notEqual(newTapName(), newTapName());
  });

  test("a missing bridge is refused with how to make it", () => {
    assert.throws(() => requireBridge("ramet-none"), {
      code: "network",
      message: /no bridge ramet-none; make it with: ip link add/,
    });
  });
});
