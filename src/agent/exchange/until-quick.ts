/** A disk that has little else to do has written what there is of one guest within this. */
const QUICK_US = 25_000;

/** After so many times it is not waited for any longer. */
const MAX_TIMES = 10;

/**
 * Has a guest's disk written until that goes quickly. While the host's disk is busy with what others write, a guest that is stopped then would stand still for that, too: a better moment is waited for, though
 * not for ever.
 */
export async function untilQuick(sync: () => Promise<void>, nowUs: () => number): Promise<void> {
  for (let times = 0; times < MAX_TIMES; times += 1) {
    const beganUs = nowUs();
    await sync();
    if (nowUs() - beganUs < QUICK_US) return;
  }
}
