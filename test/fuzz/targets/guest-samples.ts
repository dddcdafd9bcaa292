export const GUESTS: readonly object[] = ["none", "isolated", "user", "tap"].flatMap((mode) => {
  const mac = "52:54:00:12:34:56";
  const network = {
    none: { mode },
    isolated: { mode, mac },
    user: { mode, mac, forwards: [{ host: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" }] },
    tap: { mode, mac, tap: "ramet0", bridge: "br0" },
  }[mode];
  const common = {
    id: "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
    name: "web",
    memoryBytes: 268435456,
    cpus: 1,
    kernel: "/boot/vmlinuz",
    append: "console=ttyS0",
    network,
  };
  return [
    {
      ...common,
      architecture: "x86_64",
      machine: "pc-q35-7.2",
      accelerator: "tcg",
      cpuModel: "qemu64",
      initrd: "/boot/initrd",
      vmgenid: "424e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
    },
    { ...common, architecture: "aarch64", machine: "virt-7.2" },
  ];
});

/** `info ramblock` of QEMU 7.2 and of 10.0. */
export const BLOCK_LISTS: readonly string[] = [
  `              Block Name    PSize              Offset               Used              Total
                     ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000
    /rom@etc/acpi/tables    4 KiB  0x0000000010080000 0x0000000000020000 0x0000000000200000
                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000\r
`,
  `              Block Name    PSize              Offset               Used              Total                HVA  RO
             virt.flash0    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000 0x00007f87a0800000  ro
`,
];

/** /proc/PID/maps of an emulator: heap, its memory file in two areas, a memory block with its guard page. */
export const MAPS = `55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]
7f1ae4e01000-7f1ae4e02000 ---p 00000000 00:00 0
7f1ae5000000-7f1ae5200000 rw-p 00000000 00:00 0
7f1ae5200000-7f1ae5201000 ---p 00000000 00:00 0
7f6c1bfff000-7f6c1c0ff000 rw-s 00000000 00:1b 113                        /dev/shm/guest
7f6c1c0ff000-7f6c1c1ff000 rw-s 00100000 00:1b 113                        /dev/shm/guest
`;

/** A device state as an emulator saves it, with sections of these names. */
export function savedState(...names: string[]): Buffer {
  const sections = names.flatMap((name, id) => {
    const number = Buffer.of(0, 0, 0, id);
    const head = Buffer.concat([Buffer.of(4), number, Buffer.of(name.length), Buffer.from(name)]);
    return [head, Buffer.alloc(8, 1).fill(0, 0, 4), Buffer.from(`data of ${name}`), Buffer.of(0x7e), number];
  });
  return Buffer.concat([Buffer.from("QEVM\0\0\0\x03", "latin1"), ...sections, Buffer.of(0)]);
}
