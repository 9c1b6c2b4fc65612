export { publicKeyHashOf, rootHashOf } from './fingerprint.ts'
export { importKeyring, type Keyring, openKeyring } from './keyring.ts'
export {
  createCertificateRequest,
  createNodeKey,
  decideRenewalMs,
  formatNodeCredentials,
  issueNodeCertificate,
  type NodeCertificate,
  type NodeCertificateRequest,
  type NodeCredentials,
  parseNodeCertificate,
  parseNodeCredentials,
  readNodeCredentials,
  serverNames,
  writeNodeCredentials,
} from './node-certificate.ts'
export { appendPrivateFile, readPrivateFile, writePrivateFile } from './private-file.ts'
export {
  createRootCa,
  crossSign,
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
  tokenHashOf,
} from './token.ts'
