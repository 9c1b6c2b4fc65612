import type { EndpointAssignment } from '../wire/index.ts'

/** Puts endpoints on shelves, each always on the same one: what is made of a shelf is made again only when something on it is. */
export function onShelves(
  endpoints: Iterable<EndpointAssignment>,
  count: number,
): readonly (readonly EndpointAssignment[])[] {
  const shelves = Array.from({ length: count }, (): EndpointAssignment[] => [])
  for (const endpoint of endpoints) shelves[hashOf(endpoint.id) % count]?.push(endpoint)
  return shelves
}

/** From 0 to 65,520. */
export function hashOf(id: string): number {
  let sum = 0
  for (let index = 0; index < id.length; index++) sum = (sum * 31 + id.charCodeAt(index)) % 65_521
  return sum
}
