import { buildTemplate } from '../model/testing.ts'
import type { WorkloadDeclaration } from './index.ts'

const policy = {
  parallelism: 1,
  delayMs: 0,
  onFailure: 'pause',
  monitorMs: 5_000,
  maxFailureRatio: 0,
  order: 'stopFirst',
  progressDeadlineMs: 600_000,
} as const

/** A declaration for tests. */
export function declare(over: Partial<WorkloadDeclaration> = {}): WorkloadDeclaration {
  return {
    name: 'web',
    labels: {},
    mode: { type: 'replicated', replicas: 1 },
    update: policy,
    rollback: policy,
    onNodeLoss: { type: 'replace' },
    template: buildTemplate(),
    endpoint: { mode: 'vip', networks: [], ports: [] },
    source: { dialect: 'docker', document: {} },
    ...over,
  }
}
