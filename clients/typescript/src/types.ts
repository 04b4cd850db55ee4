/** Names for the parts of schema.ts, which is generated from the server's OpenAPI document. */
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];
type Query<Path extends keyof paths> = paths[Path] extends { get: { parameters: { query?: infer Q } } } ? NonNullable<Q> : never;
type Body<Path extends keyof paths, Method extends "put" | "post" | "patch"> = paths[Path] extends {
  [M in Method]: { requestBody: { content: { "application/json": infer B } } };
}
  ? B
  : never;

export type Accepted = Schemas["Accepted"];
export type EntryResults = Schemas["EntryResults"];
export type EventResult = Schemas["EventResult"];
export type EventResults = Schemas["EventResults"];
export type Explanation = Schemas["Explanation"];
export type ItemAnswer = Schemas["ItemAnswer"];
export type ItemList = Schemas["ItemList"];
export type ItemPage = Schemas["ItemPage"];
export type Preview = Schemas["Preview"];
export type Recommendation = Schemas["Recommendation"];
export type Recommendations = Schemas["Recommendations"];
export type SimilarUsers = Schemas["SimilarUsers"];
export type UserAnswer = Schemas["UserAnswer"];

/** An event as the server accepts it. */
export type WireEvent = Exclude<Body<"/api/events", "post">, unknown[]>;
/**
 * An event; `event_id` and `timestamp` (seconds since 1970) are added when they are missing.
 * Set `event_id` if you may send the event again after an error: the same one counts once.
 */
export type Event = Omit<WireEvent, "event_id" | "timestamp" | "schema_version"> & Partial<Pick<WireEvent, "event_id" | "timestamp">>;
export type Item = Body<"/api/items/{item_id}", "put"> & { item_id: string };
/** Fields to change; null removes one, all others stay. */
export type ItemChange = Body<"/api/items/{item_id}", "patch">;
export type UserChange = Body<"/api/users/{user_id}", "patch">;
export type User = Body<"/api/users/{user_id}", "put"> & { user_id: string };

type Attribute = string | number | boolean | readonly string[];
type Texts = string | readonly string[];
/** Options of the wire, with lists as lists and filters by attribute as an object: `{ "team_size.min": 3 }`. */
type Options<Q> = { [Name in Exclude<keyof Q, "attr" | "category" | "item_type" | "exclude">]?: Exclude<Q[Name], null> } & {
  [Name in Extract<keyof Q, "category" | "item_type" | "exclude">]?: Texts;
} & ("attr" extends keyof Q ? { attr?: Readonly<Record<string, Attribute>> } : unknown);

export type PersonalOptions = Options<Query<"/api/recommendations/{user_id}">>;
export type ExplainOptions = Options<Query<"/api/explain/{user_id}/{item_id}">>;
export type PreviewOptions = Options<Query<"/api/preview/{user_id}">>;
export type ItemOptions = Options<Query<"/api/items/{item_id}/similar">>;
export type PopularOptions = Options<Query<"/api/popular">>;
export type SimilarUserOptions = Options<Query<"/api/users/{user_id}/similar">>;
export type PageOptions = Options<Query<"/api/items">>;
export type UserOptions = Options<Query<"/api/users/{user_id}">>;
