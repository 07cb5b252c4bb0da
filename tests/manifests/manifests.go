// Package manifests renders what k8s/ holds, as `kubectl apply -k` does, into the
// types of Kubernetes.
package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// An Object is any of Kubernetes'.
type Object interface {
	runtime.Object
	meta.Object
}

// Render renders a folder with a kustomization, and some components on top.
func Render(folder string, components ...string) ([]Object, error) {
	if len(components) > 0 {
		composed, err := compose(folder, components)
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(composed)
		folder = composed
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	return Decode(text)
}

// compose makes a folder that has components on top of another one. Whoever calls
// it removes it.
func compose(folder string, components []string) (string, error) {
	composed, err := os.MkdirTemp("", "rejoin-manifests-")
	if err != nil {
		return "", err
	}
	list := func(name string, folders ...string) (text string) {
		text = name + ":\n"
		for _, f := range folders {
			f, relErr := relative(composed, f)
			err = errors.Join(err, relErr)
			text += "- " + f + "\n"
		}
		return text
	}
	text := list("resources", folder) + list("components", components...)
	err = errors.Join(err, os.WriteFile(filepath.Join(composed, "kustomization.yaml"), []byte(text), 0o600))
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(composed))
	}
	return composed, nil
}

// relative is how kustomize wants the folders that another one refers to.
func relative(from, to string) (string, error) {
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return "", err
	}
	if to, err = filepath.Abs(to); err != nil {
		return "", err
	}
	if to, err = filepath.EvalSymlinks(to); err != nil {
		return "", err
	}
	return filepath.Rel(from, to)
}

// Decode reads documents of YAML. A field that does not exist, or is there twice,
// is an error, as is a kind that nodes have no use for.
func Decode(text []byte) ([]Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme, monitoring.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var objects []Object
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("manifests: %w", err)
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("manifests: %w\n%s", err, document)
		}
		objects = append(objects, object.(Object))
	}
}

// All returns the objects of one type.
func All[T Object](objects []Object) (all []T) {
	for _, o := range objects {
		if o, ok := o.(T); ok {
			all = append(all, o)
		}
	}
	return all
}
