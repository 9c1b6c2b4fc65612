import { createHash } from 'node:crypto'
import type { ComposeService, Deploy } from './project.ts'

/** Say how images come to be, how many containers there are and in which order they start: none is a container's own. */
const unhashedKeys = [
  'attach',
  'build',
  'dependsOn',
  'develop',
  'envFiles',
  'extensions',
  'labelFiles',
  'profiles',
  'pullPolicy',
  'pullRefreshAfter',
  'scale',
] as const satisfies readonly (keyof ComposeService)[]

/** All of `deploy` that one engine's containers have. */
const hashedDeployKeys = ['resources', 'restartPolicy'] as const satisfies readonly (keyof Deploy)[]

/**
 * What a service's containers are made from, as 64 hexadecimal digits of SHA-256: one whose hash differs has to be made anew.
 *
 * Counted is every key but `attach`, `build`, `depends_on`, `develop`, `env_file` and `label_file` (their contents count),
 * `profiles`, `pull_policy`, `pull_refresh_after`, `scale`, `x-*`, and of `deploy` only `resources` and `restart_policy`.
 * The order of mappings does not count. `contents`: what secrets and configs hold or a digest of it, by the reference's
 * source, so that a changed file counts too.
 */
export function serviceHash(
  service: ComposeService,
  contents: Readonly<Record<string, string>> = {},
): string {
  const unhashed: ReadonlySet<string> = new Set([...unhashedKeys, 'deploy'])
  const own = Object.entries(service).filter(([key]) => !unhashed.has(key))
  const { deploy } = service
  const ofDeploy = hashedDeployKeys.flatMap((key) => {
    const value = deploy?.[key]
    return value === undefined ? [] : [[key, value] as const]
  })
  const all = { ...Object.fromEntries(own), deploy: Object.fromEntries(ofDeploy), contents }
  return createHash('sha256')
    .update(JSON.stringify(canonical(all)))
    .digest('hex')
}

/** Keys in order, and nothing that is absent. */
function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value)
    .filter(([, item]) => item !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([key, item]) => [key, canonical(item)] as const)
  return Object.fromEntries(entries)
}
