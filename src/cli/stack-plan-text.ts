import type { FieldChange } from './spec-diff.ts'
import type { ServiceStep, StackPlan, StackStep } from './stack-plan.ts'

/** Whether deploying changes anything. */
export function isChange({ steps, outdated }: StackPlan): boolean {
  return outdated.length > 0 || steps.some(({ action }) => action !== 'keep')
}

/** The plan for people: what is made (+), changed (~) and removed (-), and which tasks restart. */
export function planText(plan: StackPlan): string {
  const lines: string[] = []
  for (const step of plan.steps) lines.push(...stepLines(step))
  for (const { kind, name } of plan.outdated) {
    lines.push(`- ${kind} ${name}, which nothing uses any more`)
  }
  const kept = plan.steps.filter(({ action }) => action === 'keep').length
  if (kept > 0) lines.push(`${kept} unchanged`)
  for (const name of plan.unwanted) {
    lines.push(`The files do not have the service ${name}. It stays; --prune removes it.`)
  }
  return `${lines.join('\n')}\n`
}

function stepLines(step: StackStep): readonly string[] {
  const { kind, action, name } = step
  switch (action) {
    case 'keep':
      return []
    case 'remove':
      return [`- ${kind} ${name}`]
    case 'relabel':
      return [`~ ${kind} ${name}: other labels`]
    case 'create':
      return [
        `+ ${kind} ${name}${'replaces' in step && step.replaces !== undefined ? `: its content is not that of ${step.replaces}` : ''}`,
      ]
    case 'update':
      return [`~ service ${name}: ${effectOf(step)}`, ...step.changes.map(changeLine)]
  }
}

function effectOf({ restarts, changes, body }: ServiceStep): string {
  if (!changes.some((change) => change.restarts)) return 'no task restarts'
  if (restarts === 0) return 'no task runs that could restart'
  const atOnce = body.UpdateConfig?.Parallelism ?? 1
  const how = atOnce === 0 || atOnce >= restarts ? 'at once' : `${atOnce} at a time`
  return restarts === 1 ? '1 task restarts' : `${restarts} tasks restart, ${how}`
}

function changeLine({ field, before, after }: FieldChange): string {
  return `    ${field}: ${before ?? '(none)'} -> ${after ?? '(none)'}`
}

/** The plan for programs. */
export function planJson(plan: StackPlan): string {
  const document = {
    Stack: plan.stack,
    Changed: isChange(plan),
    Steps: plan.steps.map((step) => ({
      Kind: step.kind,
      Action: step.action,
      Name: step.name,
      ...('replaces' in step && step.replaces !== undefined && { Replaces: step.replaces }),
      ...('changes' in step && {
        RestartingTasks: step.restarts,
        Changes: step.changes.map(({ field, before, after, restarts }) => ({
          Field: field,
          Before: before ?? null,
          After: after ?? null,
          RestartsTasks: restarts,
        })),
      }),
    })),
    Outdated: plan.outdated.map(({ kind, name }) => ({ Kind: kind, Name: name })),
    Unwanted: plan.unwanted,
  }
  return `${JSON.stringify(document, null, 2)}\n`
}
