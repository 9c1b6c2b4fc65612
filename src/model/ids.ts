import { newId, type Random } from '../base/index.ts'

declare const brand: unique symbol
/** An id of one kind of object: 25 characters of `0-9a-z`. Only this file makes one out of text. */
export type Id<Kind extends string> = string & { readonly [brand]: Kind }

export type ClusterId = Id<'cluster'>
export type NodeId = Id<'node'>
export type WorkloadId = Id<'workload'>
export type RevisionId = Id<'revision'>
export type TaskId = Id<'task'>
export type EndpointId = Id<'endpoint'>
export type NetworkId = Id<'network'>
export type SecretId = Id<'secret'>
export type ConfigId = Id<'config'>

/** A fresh random id. */
export function mintId<Kind extends string>(random: Random): Id<Kind> {
  return newId(random) as Id<Kind>
}

/** Takes text that names an object already known to exist, or is about to be looked up, as its id. */
export function idFrom<Kind extends string>(text: string): Id<Kind> {
  return text as Id<Kind>
}
