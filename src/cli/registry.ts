import { join } from 'node:path'
import { UserError } from '../base/index.ts'
import { familiarImage, pinImage } from '../compose/index.ts'
import { ApiError, type Client } from './client.ts'
import type { Io } from './io.ts'

interface Distribution {
  readonly Descriptor?: { readonly digest?: string }
  readonly Platforms?: readonly { readonly architecture?: string; readonly os?: string }[]
}

/** An image as it goes into a spec. */
export interface ResolvedImage {
  readonly image: string
  readonly platforms?: readonly { Architecture?: string; OS?: string }[]
  readonly warning?: string
}

/** Asks the registry, through the daemon, which image this name means now. A registry out of reach is only warned about. */
export async function resolveImage(
  client: Client,
  image: string,
  auth: string | undefined,
): Promise<ResolvedImage> {
  const name = familiarImage(image)
  try {
    const answer = await client.call<Distribution>(`/distribution/${name}/json`, {
      ...(auth !== undefined && { headers: { 'X-Registry-Auth': auth } }),
    })
    const digest = answer.Descriptor?.digest
    return {
      image: digest ? pinImage(name, digest) : name,
      platforms: (answer.Platforms ?? []).map(({ architecture, os }) => ({
        ...(architecture && { Architecture: architecture }),
        ...(os && { OS: os }),
      })),
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    return {
      image: name,
      warning: `no registry told the digest of ${name}: each node uses the image it has or finds under that name`,
    }
  }
}

/** As `registryAuth`, where a person asked for the login to be sent. Throws `unsupported` where it can't be read. */
export async function requestedAuth(io: Io, image: string): Promise<string> {
  const auth = await registryAuth(io, image)
  if (auth !== undefined) return auth
  throw new UserError(
    'unsupported',
    "the docker CLI keeps its logins in a credential helper, which skep can't ask",
    {
      next: 'Deploy with docker, or set DOCKER_CONFIG to a directory whose config.json holds the login.',
    },
  )
}

/**
 * The login for an image's registry, from the docker CLI's configuration, as `X-Registry-Auth` takes it; `e30=` (none) where there is
 * no login. Logins kept by a credential helper are not read: `undefined`.
 */
export async function registryAuth(io: Io, image: string): Promise<string | undefined> {
  const directory = io.env['DOCKER_CONFIG'] ?? join(io.env['HOME'] ?? '/', '.docker')
  const empty = 'e30='
  const text = await io.readFile(join(directory, 'config.json')).catch(() => undefined)
  if (text === undefined) return empty
  const json: unknown = JSON.parse(text.toString())
  if (typeof json !== 'object' || json === null) return empty
  if (('credsStore' in json && json.credsStore) || 'credHelpers' in json) return undefined
  if (!('auths' in json) || typeof json.auths !== 'object' || json.auths === null) return empty
  const server = serverOf(image)
  const entry: unknown = Object.entries(json.auths).find(([key]) => key === server)?.[1]
  if (typeof entry !== 'object' || entry === null || !('auth' in entry)) return empty
  const [username = '', ...password] = Buffer.from(String(entry.auth), 'base64')
    .toString()
    .split(':')
  return Buffer.from(
    JSON.stringify({ username, password: password.join(':'), serveraddress: server }),
  ).toString('base64url')
}

function serverOf(image: string): string {
  const [first = ''] = image.split('/')
  const isServer = image.includes('/') && (/[.:]/.test(first) || first === 'localhost')
  return isServer && !/^(index\.)?docker\.io$/.test(first) ? first : 'https://index.docker.io/v1/'
}
