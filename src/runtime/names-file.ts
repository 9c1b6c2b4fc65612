import type { ContainerSpec } from '../model/index.ts'
import type { TaskAssignment } from '../wire/index.ts'
import type { Materials } from './runtime.ts'
import type { TaskFile } from './task-files.ts'

const target = '/etc/resolv.conf'

/**
 * The file by which a task on cluster networks finds its node's resolver. The engine would name a resolver of its own
 * there, which asks that one in turn: while it starts containers, or is restarted, it answers nobody, and it has room for few
 * questions. It is still there, on 127.0.0.11. `undefined` where the engine's has to be asked: only that one knows who is on
 * a network of the engine's own. `hostNames` is the host's own file.
 */
export function namesFile(
  assignment: TaskAssignment,
  container: ContainerSpec,
  materials: Pick<Materials, 'nameservers'>,
  hostNames: string,
): TaskFile | undefined {
  const { nameservers } = materials
  if (nameservers.length === 0 || assignment.engineNetworks.length > 0) return undefined
  if (container.mounts.some((mount) => mount.target === target)) return undefined
  const { dns } = container
  const search = dns.search.length > 0 ? dns.search : searchIn(hostNames)
  // As the engine writes it: a name without a dot is asked for as it is first.
  const options = dns.options.some((option) => option.startsWith('ndots:'))
    ? dns.options
    : [...dns.options, 'ndots:0']
  const lines = [
    ...nameservers.map((address) => `nameserver ${address}`),
    // A dot alone means none. Source: `docker run --dns-search`.
    ...(search.length > 0 && search[0] !== '.' ? [`search ${search.join(' ')}`] : []),
    `options ${options.join(' ')}`,
  ]
  return {
    what: 'the names of its nameservers',
    target,
    data: Buffer.from(`${lines.join('\n')}\n`),
    ...{ uid: 0, gid: 0, mode: 0o644 },
  }
}

/** The last list counts. Source: resolv.conf(5). */
function searchIn(text: string): readonly string[] {
  const lists = text.split('\n').flatMap((line) => {
    const [word, ...names] = line.trim().split(/\s+/)
    return word === 'search' || word === 'domain' ? [names] : []
  })
  return lists.at(-1) ?? []
}
