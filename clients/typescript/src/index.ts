/** Client of Eddyline, the streaming recommender. */
export { EddylineClient, MAX_EVENTS, type ClientOptions } from "./client.js";
export { EddylineError, EventsRejected, InvalidInput, RequestRejected, Unavailable, UnexpectedAnswer } from "./errors.js";
export type { RetryPolicy } from "./retries.js";
export type * from "./types.js";
export type { components, operations, paths } from "./schema.js";
