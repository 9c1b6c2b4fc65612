import { posix } from 'node:path'
import {
  booleanAt,
  checkKeys,
  fault,
  listAt,
  mappingAt,
  parsedAt,
  requiredTextAt,
  textAt,
} from './reader.ts'
import type { StackMount } from './stack-file.ts'
import { parseBytes } from './units.ts'

const propagations = ['rprivate', 'private', 'rshared', 'shared', 'rslave', 'slave']
/** Taken by Docker Desktop and SELinux hosts only. */
const idleOptions = ['z', 'Z', 'cached', 'delegated', 'consistent']

export interface MountSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly directory: string
  readonly warn: (text: string) => void
}

/** Reads `volumes` of a service, in its short and long form. Relative sources start at the file's directory. */
export function parseMounts(
  path: string,
  json: unknown,
  around: MountSurroundings,
): readonly StackMount[] | undefined {
  if (json === undefined || json === null) return undefined
  return listAt(path, json).map((item, index) => {
    const here = `${path}[${index}]`
    return typeof item === 'string'
      ? parseShortMount(here, item, around)
      : parseLongMount(here, item, around)
  })
}

function parseShortMount(path: string, text: string, around: MountSurroundings): StackMount {
  const parts = text.split(':')
  const [first = '', second, optionText] = parts
  if (parts.length > 3 || parts.some((part) => part === '')) {
    throw fault(
      path,
      `"${text}" is not a volume`,
      'Write it as source:/target or source:/target:ro.',
    )
  }
  if (second === undefined)
    return { type: 'volume', target: target(path, first), hasBind: false, hasTmpfs: false }
  let readOnly: boolean | undefined
  let noCopy: boolean | undefined
  let propagation: string | undefined
  for (const option of optionText?.split(',') ?? []) {
    if (option === 'ro') readOnly = true
    else if (option === 'rw') readOnly = undefined
    else if (option === 'nocopy') noCopy = true
    else if (propagations.includes(option)) propagation = option
    else if (idleOptions.includes(option))
      around.warn(`${path}: the option ${option} has no effect`)
    else throw fault(path, `has the unknown option ${option}`)
  }
  const isBind = /^[./~]/.test(first)
  return {
    type: isBind ? 'bind' : 'volume',
    source: isBind ? hostPath(first, around) : first,
    target: target(path, second),
    readOnly,
    noCopy,
    propagation,
    hasBind: propagation !== undefined,
    hasTmpfs: false,
  }
}

function parseLongMount(path: string, json: unknown, around: MountSurroundings): StackMount {
  const value = mappingAt(path, json)
  checkKeys(path, value, [
    'type',
    'source',
    'target',
    'read_only',
    'consistency',
    'bind',
    'volume',
    'tmpfs',
  ])
  const type = requiredTextAt(`${path}.type`, value['type'])
  if (!['bind', 'volume', 'tmpfs'].includes(type)) {
    throw fault(`${path}.type`, `is "${type}"`, 'Choose bind, volume or tmpfs.')
  }
  for (const key of ['bind', 'volume', 'tmpfs']) {
    if (value[key] === undefined || key === type) continue
    throw fault(`${path}.${key}`, `does not belong to a mount of type ${type}`)
  }
  const bind = mappingAt(`${path}.bind`, value['bind'])
  checkKeys(`${path}.bind`, bind, ['propagation'])
  const volume = mappingAt(`${path}.volume`, value['volume'])
  checkKeys(`${path}.volume`, volume, ['nocopy', 'subpath'])
  const tmpfs = mappingAt(`${path}.tmpfs`, value['tmpfs'])
  checkKeys(`${path}.tmpfs`, tmpfs, ['size'])
  const source = textAt(`${path}.source`, value['source'])
  if (type === 'bind' && !source)
    throw fault(`${path}.source`, 'is missing', 'Name a path on the host.')
  if (type === 'tmpfs' && source)
    throw fault(`${path}.source`, 'does not belong to a mount of type tmpfs')
  return {
    type,
    source: type === 'bind' && source ? hostPath(source, around) : source,
    target: target(`${path}.target`, requiredTextAt(`${path}.target`, value['target'])),
    readOnly: booleanAt(`${path}.read_only`, value['read_only']),
    consistency: textAt(`${path}.consistency`, value['consistency']),
    propagation: textAt(`${path}.bind.propagation`, bind['propagation']),
    noCopy: booleanAt(`${path}.volume.nocopy`, volume['nocopy']),
    subpath: textAt(`${path}.volume.subpath`, volume['subpath']),
    tmpfsBytes: parsedAt(`${path}.tmpfs.size`, tmpfs['size'], parseBytes),
    hasBind: value['bind'] !== undefined && value['bind'] !== null,
    hasTmpfs: value['tmpfs'] !== undefined && value['tmpfs'] !== null,
  }
}

function target(path: string, text: string): string {
  if (text.startsWith('/') || text.includes('{{')) return text
  throw fault(path, `mounts at "${text}"`, 'Write the target as an absolute path in the container.')
}

function hostPath(source: string, { env, directory }: MountSurroundings): string {
  if (source === '~' || source.startsWith('~/')) {
    return posix.join(env['HOME'] ?? '/', source.slice(1))
  }
  return source.startsWith('/') ? source : posix.join(directory, source)
}
