import type { Random } from './world.ts'

const alphabet = '0123456789abcdefghijklmnopqrstuvwxyz'

/** A new object id: 25 characters of `0-9a-z`, about 129 random bits. */
export function newId(random: Random): string {
  let id = ''
  for (let i = 0; i < 25; i++) id += alphabet[random.below(36)]
  return id
}
