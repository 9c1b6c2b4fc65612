import type { Endpoint } from './endpoint.ts'
import type { Revision, Workload } from './workload.ts'

/**
 * The workload and its endpoint as `revision` declared them. The workload's own history (`previousRevisionId`, job
 * iteration, status) is left as it is: the caller says what becomes of it.
 */
export function withRevision(
  workload: Workload,
  endpoint: Endpoint | undefined,
  revision: Revision,
): { readonly workload: Workload; readonly endpoint: Endpoint | undefined } {
  const { declared } = revision
  const spec = { ...workload.spec, revisionId: revision.id }
  if (!declared) return { workload: { ...workload, source: revision.source, spec }, endpoint }
  const { labels, mode, update, rollback, onNodeLoss } = declared
  return {
    workload: {
      ...workload,
      labels,
      source: revision.source,
      spec: { ...spec, mode, update, rollback, onNodeLoss },
    },
    endpoint: endpoint && { ...endpoint, spec: { ...endpoint.spec, ...declared.endpoint } },
  }
}
