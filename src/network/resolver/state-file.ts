import { readFileSync } from 'node:fs'
import type { Ipv6Block } from '../../model/index.ts'
import {
  type Client,
  type ResolverState,
  stateVersion,
  tiers,
  type Zone,
  type ZonePage,
} from './zones.ts'

/** Texts of pages: one that did not change is neither rendered nor parsed again. */
const renderedPages = new WeakMap<ZonePage, string>()

/** As the file has it: a line for all but the pages, then a line for each page. */
export function renderState({ version, networks, clients }: ResolverState): string {
  const zones = networks.map(({ pages, ...zone }) => ({ ...zone, pages: pages.length }))
  const lines = [JSON.stringify({ version, networks: zones, clients })]
  for (const page of networks.flatMap(({ pages }) => pages)) {
    const text = renderedPages.get(page) ?? JSON.stringify(page)
    renderedPages.set(page, text)
    lines.push(text)
  }
  return lines.join('\n')
}

/** Reads the state that the daemon wrote, again and again. */
export class StateReader {
  readonly #path: string
  /** By text, as last read: questions wait while a state is read, and little of it changes at a time. */
  #pages: ReadonlyMap<string, ZonePage> = new Map()

  constructor(path: string) {
    this.#path = path
  }

  /** Throws with a sentence where the file is not a state. */
  read(): ResolverState {
    const [head = '', ...lines] = readFileSync(this.#path, 'utf8').split('\n')
    const parsed: unknown = JSON.parse(head)
    if (!isRecord(parsed) || parsed['version'] !== stateVersion) {
      throw new Error(`${this.#path} is not a resolver state of version ${stateVersion}`)
    }
    const damaged = () => new Error(`${this.#path} is damaged`)
    const pages = new Map<string, ZonePage>()
    for (const line of lines) {
      const page: unknown = this.#pages.get(line) ?? JSON.parse(line)
      // One that was read before was looked at then.
      if (!this.#pages.has(line) && !isPage(page)) throw damaged()
      pages.set(line, page as ZonePage)
    }
    const { networks, clients } = parsed
    if (!Array.isArray(networks) || !isRecordOf(clients, isClient)) throw damaged()
    let next = 0
    const zones = networks.map((zone: unknown): Zone => {
      if (!isZoneHead(zone)) throw damaged()
      const own = lines.slice(next, next + zone.pages)
      next += zone.pages
      if (own.length !== zone.pages) throw damaged()
      const { pages: _, ...rest } = zone
      return { ...rest, pages: own.flatMap((line) => pages.get(line) ?? []) }
    })
    this.#pages = pages
    return { version: stateVersion, networks: zones, clients }
  }
}

function isZoneHead(value: unknown): value is Omit<Zone, 'pages'> & { readonly pages: number } {
  return (
    isRecord(value) &&
    [value['id'], value['subnet'], value['gateway']].every(isString) &&
    (value['ipv6'] === undefined || isIpv6Block(value['ipv6'])) &&
    typeof value['internal'] === 'boolean' &&
    typeof value['pages'] === 'number'
  )
}

function isIpv6Block(value: unknown): value is Ipv6Block {
  return (
    isRecord(value) &&
    isString(value['subnet']) &&
    isString(value['gateway']) &&
    (value['range'] === undefined || isString(value['range']))
  )
}

function isPage(value: unknown): value is ZonePage {
  return (
    isRecord(value) &&
    tiers.every((tier) => isRecordOf(value[tier], isStrings)) &&
    isRecordOf(value['reverse'], isString) &&
    isRecordOf(value['weights'], isNumber)
  )
}

function isClient(value: unknown): value is Client {
  return isRecord(value) && isStrings(value['networks']) && isStrings(value['nameservers'])
}

function isRecordOf<Value>(
  value: unknown,
  isValue: (item: unknown) => item is Value,
): value is Readonly<Record<string, Value>> {
  if (!isRecord(value)) return false
  for (const key in value) if (!isValue(value[key])) return false
  return true
}

function isString(value: unknown): value is string {
  return typeof value === 'string'
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every(isString)
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number'
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
