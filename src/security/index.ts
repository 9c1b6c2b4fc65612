export { type Keyring, openKeyring } from './keyring.ts'
export {
  createCertificateRequest,
  createNodeKey,
  decideRenewalMs,
  issueNodeCertificate,
  type NodeCertificate,
  type NodeCertificateRequest,
  type NodeCredentials,
  parseNodeCertificate,
  readNodeCredentials,
  writeNodeCredentials,
} from './node-certificate.ts'
export {
  createRootCa,
  describeRoot,
  type RootCa,
  type RootDescription,
  rootFromPem,
} from './root-ca.ts'
export {
  createJoinToken,
  createUnlockKey,
  isSameSecret,
  isTokenForRoot,
  type JoinToken,
  parseJoinToken,
  parseUnlockKey,
} from './token.ts'
