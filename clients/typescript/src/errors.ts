/**
 * The errors that this package throws.
 *
 * EddylineError
 * ├── InvalidInput        an argument cannot be sent; nothing was sent
 * ├── Unavailable         no answer in time, after all retries: try again later, a repeated event_id counts once
 * ├── EventsRejected      some events break the contract: `results` names each
 * ├── RequestRejected     the server refuses the request: `status`, `error` (a stable word)
 * └── UnexpectedAnswer    another server or a proxy answers at this address
 */
import type { EventResults } from "./types.js";

export class EddylineError extends Error {
  constructor(message: string) {
    super(message);
    this.name = new.target.name;
  }

  /** Set when `sendEvents` fails after a part was accepted: an event without a token in it was not accepted. */
  results?: EventResults;
}

export class InvalidInput extends EddylineError {}

export class Unavailable extends EddylineError {}

export class EventsRejected extends EddylineError {
  constructor(
    message: string,
    override readonly results: EventResults,
  ) {
    super(message);
  }
}

export class RequestRejected extends EddylineError {
  constructor(
    readonly status: number,
    readonly error: string,
    message: string,
  ) {
    super(message);
  }
}

export class UnexpectedAnswer extends EddylineError {}
