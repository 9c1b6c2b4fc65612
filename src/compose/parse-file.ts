import { dirname, join } from 'node:path'
import { parseDocument, type ScalarTag } from 'yaml'
import { messageOf, UserError } from '../base/index.ts'
import { type Environment, interpolate } from './interpolate.ts'
import { parseService } from './parse-service.ts'
import {
  booleanAt,
  checkKeys,
  fault,
  isMapping,
  labelsAt,
  listAt,
  type Mapping,
  mappingAt,
  requiredTextAt,
  textAt,
  textOrTextsAt,
} from './reader.ts'
import type {
  Pairs,
  StackFile,
  StackFileObject,
  StackNetwork,
  StackService,
  StackVolume,
} from './stack-file.ts'

/** Where the loader gets files and variables from. */
export interface StackSources {
  readonly readFile: (path: string) => Promise<Buffer>
  readonly env: Environment
  /** Hears of what has no effect. */
  readonly warn: (text: string) => void
}

/** Docker reads `0440` as octal, as YAML 1.1 did. */
const octal: ScalarTag = {
  tag: 'tag:yaml.org,2002:int',
  default: true,
  test: /^0[0-7]+$/,
  resolve: (text) => Number.parseInt(text, 8),
}

/** Reads YAML text with merge keys and octal numbers. `name` is told in errors. Throws `invalidInput`. */
export function parseYaml(name: string, text: string): unknown {
  const document = parseDocument(text, { merge: true, customTags: (tags) => [octal, ...tags] })
  const error = document.errors[0]
  if (error) {
    throw new UserError(
      'invalidInput',
      `${name} is not valid YAML: ${error.message.split('\n')[0]}`,
    )
  }
  try {
    return document.toJS()
  } catch (cause) {
    throw new UserError('invalidInput', `${name} is not valid YAML: ${messageOf(cause)}`)
  }
}

/** Reads and checks one stack file; `path` is absolute. */
export async function parseStackFile(
  path: string,
  text: string,
  { readFile, env, warn }: StackSources,
): Promise<StackFile> {
  const root = parseYaml(path, text)
  if (!isMapping(root)) {
    throw new UserError('invalidInput', `${path} is not a mapping`, {
      next: 'A stack file begins with services:.',
    })
  }
  checkKeys('', root, ['version', 'services', 'networks', 'volumes', 'secrets', 'configs', 'name'])
  const version = textAt('version', root['version'])
  if (version !== undefined && !/^3(\.\d+)?$/.test(version)) {
    throw fault('version', `is ${version}`, 'Leave version out, or write 3.8 or another 3.x.')
  }
  if (root['name'] !== undefined) warn('name has no effect: the stack is named on the command line')
  const missing = new Set<string>()
  const section = (name: string): Mapping =>
    mappingAt(
      name,
      withVariables(root[name], env, (variable) => missing.add(variable)),
    )
  const directory = dirname(path)
  const services: Record<string, StackService> = {}
  for (const [name, json] of Object.entries(section('services'))) {
    const here = `services.${name}`
    if (!/^[a-zA-Z0-9][a-zA-Z0-9._-]*$/.test(name)) {
      throw fault(here, 'is no name for a service', 'Use letters, digits, ".", "_" and "-".')
    }
    const files = isMapping(json) ? textOrTextsAt(`${here}.env_file`, json['env_file']) : undefined
    services[name] = parseService(here, json, {
      env,
      directory,
      fileEnvironment: await readEnvFiles(`${here}.env_file`, files ?? [], directory, readFile),
      warn,
    })
  }
  const networks = mapValues(section('networks'), (name, json) =>
    parseNetwork(`networks.${name}`, json, warn),
  )
  const volumes = mapValues(section('volumes'), (name, json) =>
    parseVolume(`volumes.${name}`, json, warn),
  )
  const secrets = mapValues(section('secrets'), (name, json) =>
    parseFileObject(`secrets.${name}`, json, directory, warn),
  )
  const configs = mapValues(section('configs'), (name, json) =>
    parseFileObject(`configs.${name}`, json, directory, warn),
  )
  for (const variable of missing) {
    warn(`the variable ${variable} is not set: an empty string is used`)
  }
  return { services, networks, volumes, secrets, configs }
}

async function readEnvFiles(
  path: string,
  files: readonly string[],
  directory: string,
  readFile: StackSources['readFile'],
): Promise<Pairs<string | undefined>> {
  const all: Record<string, string | undefined> = {}
  for (const file of files) {
    const where = file.startsWith('/') ? file : join(directory, file)
    const text = await readFile(where).catch((cause: unknown) => {
      throw new UserError('invalidInput', `${path}: cannot read ${where}: ${messageOf(cause)}`, {
        cause,
      })
    })
    Object.assign(all, parseEnvFile(text.toString()))
  }
  return all
}

/** Reads lines of `NAME=value`; a name alone takes the shell's value. Quotes are part of the value, as in docker. */
export function parseEnvFile(text: string): Pairs<string | undefined> {
  const pairs: Record<string, string | undefined> = {}
  for (const line of text.replace(/^\uFEFF/, '').split(/\r?\n/)) {
    const bare = line.trimStart()
    if (bare === '' || bare.startsWith('#')) continue
    const at = bare.indexOf('=')
    if (at < 0) pairs[bare.trim()] = undefined
    else pairs[bare.slice(0, at)] = bare.slice(at + 1)
  }
  return pairs
}

function mapValues<T>(
  mapping: Mapping,
  parse: (name: string, json: unknown) => T,
): Record<string, T> {
  return Object.fromEntries(
    Object.entries(mapping).map(([name, json]) => [name, parse(name, json)]),
  )
}

function withVariables(
  value: unknown,
  env: Environment,
  onMissing: (name: string) => void,
): unknown {
  if (typeof value === 'string') return interpolate(value, env, onMissing)
  if (Array.isArray(value)) return value.map((item) => withVariables(item, env, onMissing))
  if (!isMapping(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, withVariables(item, env, onMissing)]),
  )
}

/** `external: true` with `name`, or the older `external: {name}`. */
function parseExternal(
  path: string,
  value: Mapping,
  warn: (text: string) => void,
): { readonly external: boolean; readonly name: string | undefined } {
  const name = textAt(`${path}.name`, value['name'])
  const external = value['external']
  if (!isMapping(external)) {
    return { external: booleanAt(`${path}.external`, external) ?? false, name }
  }
  checkKeys(`${path}.external`, external, ['name'])
  const inner = textAt(`${path}.external.name`, external['name'])
  if (inner !== undefined && name !== undefined) {
    throw fault(path, 'has both name and external.name', 'Keep name.')
  }
  if (inner !== undefined) warn(`${path}.external.name is deprecated: write ${path}.name`)
  return { external: true, name: inner ?? name }
}

function refuseBesideExternal(path: string, value: Mapping, allowed: readonly string[]): void {
  for (const key of Object.keys(value)) {
    if (key === 'external' || key === 'name' || key.startsWith('x-') || allowed.includes(key))
      continue
    throw fault(
      `${path}.${key}`,
      'does not belong to something external',
      'Remove it, or remove external.',
    )
  }
}

function parseNetwork(path: string, json: unknown, warn: (text: string) => void): StackNetwork {
  const value = mappingAt(path, json)
  checkKeys(path, value, [
    'attachable',
    'driver',
    'driver_opts',
    'external',
    'internal',
    'ipam',
    'labels',
    'name',
  ])
  const { external, name } = parseExternal(path, value, warn)
  if (external) refuseBesideExternal(path, value, [])
  const ipam = mappingAt(`${path}.ipam`, value['ipam'])
  checkKeys(`${path}.ipam`, ipam, ['driver', 'config'])
  return {
    external,
    name,
    driver: textAt(`${path}.driver`, value['driver']),
    driverOpts: labelsAt(`${path}.driver_opts`, value['driver_opts']),
    internal: booleanAt(`${path}.internal`, value['internal']) ?? false,
    attachable: booleanAt(`${path}.attachable`, value['attachable']) ?? false,
    labels: labelsAt(`${path}.labels`, value['labels']),
    ...(Object.keys(ipam).length > 0 && {
      ipam: {
        driver: textAt(`${path}.ipam.driver`, ipam['driver']) ?? '',
        subnets: listAt(`${path}.ipam.config`, ipam['config']).map((item, index) => {
          const here = `${path}.ipam.config[${index}]`
          const config = mappingAt(here, item)
          checkKeys(here, config, ['subnet'])
          return requiredTextAt(`${here}.subnet`, config['subnet'])
        }),
      },
    }),
  }
}

function parseVolume(path: string, json: unknown, warn: (text: string) => void): StackVolume {
  const value = mappingAt(path, json)
  checkKeys(path, value, ['driver', 'driver_opts', 'external', 'labels', 'name'])
  const { external, name } = parseExternal(path, value, warn)
  if (external) refuseBesideExternal(path, value, [])
  return {
    external,
    name,
    driver: textAt(`${path}.driver`, value['driver']),
    driverOpts: labelsAt(`${path}.driver_opts`, value['driver_opts']),
    labels: labelsAt(`${path}.labels`, value['labels']),
  }
}

function parseFileObject(
  path: string,
  json: unknown,
  directory: string,
  warn: (text: string) => void,
): StackFileObject {
  const value = mappingAt(path, json)
  checkKeys(path, value, [
    'driver',
    'driver_opts',
    'external',
    'file',
    'labels',
    'name',
    'template_driver',
  ])
  const { external, name } = parseExternal(path, value, warn)
  if (external) refuseBesideExternal(path, value, [])
  const file = textAt(`${path}.file`, value['file'])
  const driver = textAt(`${path}.driver`, value['driver'])
  if (!external && file === undefined && driver === undefined) {
    throw fault(path, 'has no file', 'Name one with file:, or write external: true.')
  }
  if (file?.includes('\n')) {
    throw fault(
      `${path}.file`,
      'holds text instead of a path',
      'Put the text into a file and name that.',
    )
  }
  return {
    external,
    name,
    file: file === undefined || file.startsWith('/') ? file : join(directory, file),
    labels: labelsAt(`${path}.labels`, value['labels']),
    driver,
    driverOpts: labelsAt(`${path}.driver_opts`, value['driver_opts']),
    templateDriver: textAt(`${path}.template_driver`, value['template_driver']),
  }
}
