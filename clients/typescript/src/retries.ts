/** Limits of retries: exponential back-off with jitter, `Retry-After` obeyed. */
export interface RetryPolicy {
  /** Requests in all; 1 for no retry. */
  attempts: number;
  /** Milliseconds before the first retry; each further wait is twice as long. */
  firstWaitMs: number;
  longestWaitMs: number;
  /** No retry begins later than this many milliseconds after the call. */
  totalMs: number;
}

export const DEFAULT_RETRIES: RetryPolicy = { attempts: 10, firstWaitMs: 100, longestWaitMs: 3000, totalMs: 15_000 };

/** Too many requests, unavailable; a proxy answers 502 and 504 while the server behind it restarts. */
export const RETRIED_STATUS: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** Share of a wait that is random, so that the clients of a restarted server do not retry at once. */
const JITTER = 0.5;

/** The waits of one call. */
export class Backoff {
  attempts = 1;
  private readonly deadline: number;

  constructor(private readonly policy: RetryPolicy) {
    this.deadline = Date.now() + policy.totalMs;
  }

  /** Waits before the next attempt; false when there is none left. */
  async wait(retryAfterMs = 0): Promise<boolean> {
    const backoff = Math.min(this.policy.longestWaitMs, this.policy.firstWaitMs * 2 ** (this.attempts - 1));
    const wait = Math.max(retryAfterMs, backoff * (1 - JITTER * Math.random()));
    if (this.attempts >= this.policy.attempts || Date.now() + wait > this.deadline) return false;
    this.attempts += 1;
    await new Promise((resolve) => setTimeout(resolve, wait));
    return true;
  }
}

/** The milliseconds of a Retry-After header, in seconds or as a date; 0 without a valid one. */
export function retryAfterMs(header: string | null): number {
  if (!header) return 0;
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? 0 : Math.max(0, date - Date.now());
}
