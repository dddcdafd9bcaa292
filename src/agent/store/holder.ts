import { z } from "zod";

/** Who somebody is, in a record on disk. */
export const holderSchema = z.strictObject({
  kind: z.enum(["certificate", "key", "local"]),
  name: z.string().min(1).max(4096),
});
