import type { Extensions } from './project.ts'
import { fault } from './reader.ts'

/** What `x-skep` of a service may say, each the service label `skep.<key>`; the daemon checks the values. */
const keys: readonly string[] = ['drain', 'failure', 'ingress', 'rebalance']

/** Labels that a service's `x-skep` stands for. Throws `invalidInput` for anything else in there. */
export function skepLabels(
  path: string,
  extensions: Extensions | undefined,
): Readonly<Record<string, string>> {
  const given = extensions?.['x-skep']
  if (given === undefined || given === null) return {}
  const place = `${path}.x-skep`
  if (typeof given !== 'object' || Array.isArray(given)) {
    throw fault(place, 'is not a mapping', `It may hold ${keys.join(', ')}.`)
  }
  return Object.fromEntries(
    Object.entries(given).map(([key, value]: [string, unknown]) => {
      if (!keys.includes(key)) {
        throw fault(`${place}.${key}`, 'is not supported', `It may hold ${keys.join(', ')}.`)
      }
      if (typeof value !== 'string' && typeof value !== 'boolean' && typeof value !== 'number') {
        throw fault(`${place}.${key}`, 'is not a text', `Write it as ${key}: value.`)
      }
      const text = value === true ? 'on' : value === false ? 'off' : String(value)
      return [`skep.${key}`, text]
    }),
  )
}
