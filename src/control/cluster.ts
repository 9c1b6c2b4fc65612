import { UserError } from '../base/index.ts'
import type { Cluster, ClusterSpec, Source } from '../model/index.ts'
import type { View } from '../store/store.ts'
import { stableJson } from './template-hash.ts'
import { type Changes, checkVersion } from './world.ts'

export interface ClusterDeclaration {
  readonly labels: Readonly<Record<string, string>>
  readonly spec: ClusterSpec
  readonly source: Source
}

/** The one cluster object. Throws `unavailable` while there is none. */
export function clusterOf(view: View): Cluster {
  for (const cluster of view.list('cluster')) return cluster
  throw new UserError('unavailable', 'this node does not know its cluster yet', {
    next: 'Try again in a moment.',
  })
}

/** Resolves with the cluster as it was before. */
export async function updateCluster(
  changes: Changes,
  version: number,
  { labels, spec, source }: ClusterDeclaration,
): Promise<Cluster> {
  const { result } = await changes.run((view) => {
    const cluster = clusterOf(view)
    checkVersion(cluster, version)
    const isSame =
      stableJson([cluster.labels, cluster.spec, cluster.source.document]) ===
      stableJson([labels, spec, source.document])
    const next: Cluster = { ...cluster, labels, spec, source }
    return {
      changes: isSame ? [] : [{ type: 'update', object: next, specChanged: true }],
      result: cluster,
    }
  })
  return result
}
