import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Ipv6Block } from '../../model/index.ts'
import {
  type Client,
  type ResolverState,
  stateVersion,
  tiers,
  type Zone,
  type ZonePage,
} from './zones.ts'

/** A state as files: a head, and one for each page, which is named for what it holds and so never changed. */
export interface StateFiles {
  readonly head: string
  /** Texts by name. */
  readonly pages: ReadonlyMap<string, string>
}

/** The pages' folder, beside the head. */
export const pagesFolder = 'resolver-pages'

/** One that did not change is neither rendered, nor written, nor read again. */
const renderedPages = new WeakMap<ZonePage, { readonly name: string; readonly text: string }>()

export function renderState({ version, networks, clients }: ResolverState): StateFiles {
  const texts = new Map<string, string>()
  const nameOf = (page: ZonePage): string => {
    const { name, text } = renderPage(page)
    texts.set(name, text)
    return name
  }
  const zones = networks.map(({ pages, ...zone }) => ({ ...zone, pages: pages.map(nameOf) }))
  return { head: JSON.stringify({ version, networks: zones, clients }), pages: texts }
}

function renderPage(page: ZonePage): { readonly name: string; readonly text: string } {
  const known = renderedPages.get(page)
  if (known) return known
  const text = JSON.stringify(page)
  const rendered = { name: nameOfText(text), text }
  renderedPages.set(page, rendered)
  return rendered
}

function nameOfText(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** Reads the state that the daemon wrote, again and again. */
export class StateReader {
  readonly #path: string
  /** By name, as last read: questions wait while a state is read, and little of it changes at a time. */
  #pages: ReadonlyMap<string, ZonePage> = new Map()

  /** `path` is the head's. */
  constructor(path: string) {
    this.#path = path
  }

  /** Throws with a sentence where the files are not a state. */
  read(): ResolverState {
    const parsed: unknown = JSON.parse(readFileSync(this.#path, 'utf8'))
    if (!isRecord(parsed) || parsed['version'] !== stateVersion) {
      throw new Error(`${this.#path} is not a resolver state of version ${stateVersion}`)
    }
    const { networks, clients } = parsed
    if (!Array.isArray(networks) || !isRecordOf(clients, isClient)) throw this.#damage(this.#path)
    const pages = new Map<string, ZonePage>()
    const zones = networks.map((zone: unknown): Zone => {
      if (!isZoneHead(zone)) throw this.#damage(this.#path)
      const own = zone.pages.map((name) => {
        const page = pages.get(name) ?? this.#pages.get(name) ?? this.#readPage(name)
        pages.set(name, page)
        return page
      })
      return { ...zone, pages: own }
    })
    this.#pages = pages
    return { version: stateVersion, networks: zones, clients }
  }

  #readPage(name: string): ZonePage {
    const path = join(dirname(this.#path), pagesFolder, name)
    const text = readFileSync(path, 'utf8')
    const page: unknown = nameOfText(text) === name ? JSON.parse(text) : undefined
    if (!isPage(page)) throw this.#damage(path)
    return page
  }

  #damage(path: string): Error {
    return new Error(`${path} is damaged`)
  }
}

function isZoneHead(
  value: unknown,
): value is Omit<Zone, 'pages'> & { readonly pages: readonly string[] } {
  return (
    isRecord(value) &&
    [value['id'], value['subnet'], value['gateway']].every(isString) &&
    (value['ipv6'] === undefined || isIpv6Block(value['ipv6'])) &&
    typeof value['internal'] === 'boolean' &&
    Array.isArray(value['pages']) &&
    value['pages'].every(isPageName)
  )
}

function isPageName(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)
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
