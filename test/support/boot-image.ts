import { writeFileSync } from "node:fs";

const SECTOR_BYTES = 512;
const IMAGE_BYTES = 1024 * 1024;

/**
 * A program for the first sector of a disk, which a PC's firmware loads at 0x7c00: says what follows it (to the zero byte) on the first serial port, and from then on what it reads there.
 *
 *     xor ax,ax; mov ds,ax; mov si,msg          fb f4: sti; hlt, until something has come
 *     next: lodsb; test al,al; jz idle; call put; jmp next
 *     idle: sti; hlt; mov dx,3fd; in al,dx; test al,1; jz idle; mov dx,3f8; in al,dx; call put; jmp idle
 *     put:  mov bl,al; mov dx,3fd; full: in al,dx; test al,20; jz full; mov dx,3f8; mov al,bl; out dx,al; ret
 */
const PROGRAM = Buffer.from(
  "31c08ed8be357cac84c07405e81500ebf6fbf4bafd03eca80174f6baf803ece80200ebed88c3bafd03eca82074fbbaf80388d8eec3",
  "hex",
);

/** Writes a raw disk from which a machine boots that says `text` and then repeats what is typed. It needs no kernel, and runs within seconds. */
export function writeBootImage(path: string, text: string): string {
  const disk = Buffer.alloc(IMAGE_BYTES);
  PROGRAM.copy(disk);
  disk.write(`${text}\r\n`, PROGRAM.length, "latin1");
  disk.writeUInt16LE(0xaa55, SECTOR_BYTES - 2);
  writeFileSync(path, disk);
  return path;
}
