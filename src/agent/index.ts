export { type Agent, type AgentOptions, startAgent } from './agent.ts'
export type { Journal, JournalEntry } from './journal.ts'
