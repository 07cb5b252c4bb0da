package manifests

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
)

// Environment returns what the first container of a pod finds in its environment,
// as Kubernetes makes it of the objects: ConfigMaps first, then the variables one
// after another. The pod has an IP, and what the objects hold no Secret for is
// taken from secrets, by key.
func Environment(objects []Object, pod core.PodSpec, ip string, secrets map[string]string) (map[string]string, error) {
	e := environment{objects: objects, ip: ip, secrets: secrets, made: map[string]string{}}
	c := pod.Containers[0]
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil || from.Prefix != "" {
			return nil, fmt.Errorf("manifests: envFrom %v is not a plain ConfigMap", from)
		}
		i := slices.IndexFunc(All[*core.ConfigMap](objects), func(m *core.ConfigMap) bool { return m.Name == from.ConfigMapRef.Name })
		if i < 0 {
			return nil, fmt.Errorf("manifests: ConfigMap %s not found", from.ConfigMapRef.Name)
		}
		maps.Copy(e.made, All[*core.ConfigMap](objects)[i].Data)
	}
	for _, v := range c.Env {
		if err := e.add(v); err != nil {
			return nil, fmt.Errorf("manifests: %s: %w", v.Name, err)
		}
	}
	return e.made, nil
}

type environment struct {
	objects []Object
	ip      string
	secrets map[string]string
	made    map[string]string
}

func (e *environment) add(v core.EnvVar) error {
	from := cmp.Or(v.ValueFrom, &core.EnvVarSource{})
	switch {
	case v.ValueFrom == nil:
		e.made[v.Name] = e.expand(v.Value)
	case from.FieldRef != nil && from.FieldRef.FieldPath == "status.podIP":
		e.made[v.Name] = e.ip
	case from.SecretKeyRef != nil:
		value, ok := e.secret(from.SecretKeyRef)
		if ok {
			e.made[v.Name] = value
		} else if from.SecretKeyRef.Optional == nil || !*from.SecretKeyRef.Optional {
			return fmt.Errorf("the Secret %s has no key %s", from.SecretKeyRef.Name, from.SecretKeyRef.Key)
		}
	default:
		return fmt.Errorf("it comes from %v", from)
	}
	return nil
}

// expand replaces $(NAME) by the variables that there are before.
func (e *environment) expand(value string) string {
	for name, v := range e.made {
		value = strings.ReplaceAll(value, "$("+name+")", v)
	}
	return value
}

func (e *environment) secret(ref *core.SecretKeySelector) (string, bool) {
	for _, s := range All[*core.Secret](e.objects) {
		if s.Name == ref.Name {
			value, ok := s.Data[ref.Key]
			return string(value), ok
		}
	}
	value, ok := e.secrets[ref.Key]
	return value, ok
}
